"""Running a model over many texts: predictions, speed, figures, reports."""
