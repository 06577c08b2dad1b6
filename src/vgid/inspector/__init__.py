"""The inspector: the model before unlearning and the one after it side by side in a browser, on this machine only."""
