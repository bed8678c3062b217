package vm

import "banger/internal/op"

// Change is one transaction's worth of news about one VM.
type Change struct {
	VM     VM
	Remove bool          // the VM leaves the store, with its records and its lease
	Hold   []Record      // added
	Drop   Until         // records of this lifetime leave; empty drops none
	Op     *op.Operation // the operation it belongs to, as it is now; nil when there is none
}
