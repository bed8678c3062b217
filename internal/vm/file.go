package vm

import "time"

// File tells a file from every other, and from itself once it was written to.
type File struct {
	Inode   uint64    `json:"inode"`
	Size    int64     `json:"size"`    // bytes
	Changed time.Time `json:"changed"` // its ctime, which nobody can set
}

// Same reports whether it is that file, and was not touched.
func (f File) Same(as File) bool {
	return f.Inode == as.Inode && f.Size == as.Size && f.Changed.Equal(as.Changed)
}
