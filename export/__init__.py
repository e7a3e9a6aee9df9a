"""From a trained run to what serves it: versioned SavedModels, proved before they get their name."""
