"""The app: a window in the browser to look at audits, compare them, look into one record, and test a model."""
