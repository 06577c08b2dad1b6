"""One reader for each family of data files; all give rows as they were found, which `vgid.data.rows` turns into examples."""
