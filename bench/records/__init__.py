"""What a run leaves behind: keys, typed records, their store, their packed form. No torch."""
