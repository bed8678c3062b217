package term

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
)

// maxLine bounds what is held of a line that does not end.
const maxLine = 16 << 10

// CopyLines copies a log to a terminal line by line, escaped, each behind a prefix. Colours, which a guest's init
// writes in every line, are dropped rather than shown as escapes. A line is one write.
func CopyLines(w io.Writer, r io.Reader, prefix string) error {
	colour := regexp.MustCompile(`\x1b\[[0-9;:]{0,32}m`)
	br := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := br.ReadSlice('\n')
		if len(line) > 0 {
			text := bytes.TrimRight(colour.ReplaceAll(line, nil), "\r\n")
			if _, err := fmt.Fprintln(w, prefix+escape(string(text), "\t")); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, bufio.ErrBufferFull), err == nil:
		default:
			return err
		}
	}
}
