package vm

// Caller is who asks, as the kernel vouches for it: the peer credentials of a Unix socket.
type Caller struct {
	UID int
	GID int
	PID int
}

// Sees reports whether the caller may know that an object of this owner exists. Root sees all.
func (c Caller) Sees(owner int) bool { return c.UID == 0 || c.UID == owner }
