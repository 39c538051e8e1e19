"""A logger: the metrics of a run as a table, RUN/metrics.csv, one line for each value.

logging: {also: {table: {use: logger:Table, digits: 4}}}
"""

import csv

import chopmix


class Table(chopmix.Logger):
    """`digits`: significant digits of a value."""

    def __init__(self, *, digits: int = 6):
        self.digits = digits

    def open(self, folder, step, config):
        path, kept = folder / "metrics.csv", []
        if path.exists():  # of a run that resumes, lines of later steps are removed
            with open(path, newline="") as file:
                kept = [row for row in csv.reader(file) if int(row[0]) <= step]
        self.file = open(path, "w", newline="")
        self.writer = csv.writer(self.file)
        self.writer.writerows(kept)

    def on_metrics(self, step, metrics):
        self.writer.writerows((step, name, f"{value:.{self.digits}g}") for name, value in metrics.items())
        self.file.flush()

    def close(self):
        self.file.close()
