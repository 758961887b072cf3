"""Who takes part: the sheet, BIDS import, the split ledger and chunks, the synthetic cohort."""
