package lifecycle

import (
	"maps"
	"slices"
)

// Kinds are all kinds of operations.
func Kinds() []string { return slices.Sorted(maps.Keys(verbs)) }
