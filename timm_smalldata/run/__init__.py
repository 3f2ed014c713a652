"""One run and its folder: from settled settings to a report; only the script comes in here."""
