package guest

// CleanEvent is what turns frames into events.
var CleanEvent = clean
