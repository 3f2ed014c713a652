"""Numbers become a report: JSON, tables, a comparison of runs; nothing here trains or evaluates."""
