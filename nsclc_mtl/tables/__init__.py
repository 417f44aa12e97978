"""Clinical tables, omics and outcomes."""
