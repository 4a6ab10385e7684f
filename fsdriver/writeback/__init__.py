"""What this host owes the stores: staging files, the journal of what becomes of them, and who carries it out."""
