package drain

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"banger/internal/host/plain"
)

// Tail returns the last lines of a log, each cut to 1 KiB and safe for a terminal; "" when the log
// does not exist or holds nothing.
func Tail(path string, lines int) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	window := min(info.Size(), int64(lines)*maxLine)
	buf := make([]byte, window)
	n, err := f.ReadAt(buf, info.Size()-window)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	var kept []string
	for line := range strings.Lines(string(buf[:n])) {
		if line = plain.Line(line); line != "" {
			kept = append(kept, line[:min(len(line), maxLine)])
		}
	}
	return strings.Join(kept[max(0, len(kept)-lines):], "\n"), nil
}
