"""From records to claims: statistics, tables, figures, one page, and a mirror in a tracker."""
