package store_test

import (
	"banger/internal/lifecycle"
	"banger/internal/store"
)

// The verbs see the store through this port (see internal/lifecycle/ports.go and vm.Change): one
// Create, one Commit; each is one durable transaction.
var _ lifecycle.Store = (*store.Store)(nil)
