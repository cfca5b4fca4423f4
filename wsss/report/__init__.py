"""The report: one self-contained HTML page of everything that a data set's runs left behind."""
