"""What was selected: rows, measures, reports, differences."""
