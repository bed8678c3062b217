package guest

// CleanEvent is what turns frames into events.
var CleanEvent = clean

// CleanStats is what figures go through.
var CleanStats = cleanStats
