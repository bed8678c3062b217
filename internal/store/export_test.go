package store

// ParseVM is what reads a vm.json.
var ParseVM = parseVM
