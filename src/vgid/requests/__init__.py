"""Deletion requests: from a folder of rows to a model that forgot them, and a record of the evidence.

A request passes through four types, each made of the one before:

1. `ForgetOptions` (`vgid.requests.options`): what the user asked for. Nothing has been read yet.
2. `ParsedRequest` (`vgid.requests.request`): the request folder as it was read: the rows, and what `request.yaml` states.
3. `ResolvedRun` (`vgid.requests.resolved`): everything that decides the run, read and checked: the request, previous deletions
   (`vgid.requests.previous`), settings, policy and the folders of the models.
4. `RunState` (`vgid.requests.state`): the file that names the inputs and the finished steps of a run, so that the same command
   continues it.

`vgid.requests.forget.forget` goes through the steps of `vgid.requests.steps`; each calls the function of an ordinary command and writes
files. `build_record` makes the `Record` (`vgid.requests.record`) from those files, and `vgid.requests.manifest` protects the record with
digests and an HMAC.
"""
