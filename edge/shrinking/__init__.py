"""Parts of `edge shrink`: its plan, the fields of a step, and what each kind of step runs."""
