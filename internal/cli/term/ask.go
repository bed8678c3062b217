package term

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Ask prints a question and returns the answer in lower case. It ends with ctx, leaving the read to
// the end of the process.
func (s *IO) Ask(ctx context.Context, question string) (string, error) {
	fmt.Fprint(s.Err, question)
	type reply struct {
		line string
		err  error
	}
	replies := make(chan reply, 1)
	go func() {
		line, err := bufio.NewReader(s.In).ReadString('\n')
		replies <- reply{line, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(s.Err)
		return "", ctx.Err()
	case r := <-replies:
		if r.err != nil && !errors.Is(r.err, io.EOF) {
			return "", r.err
		}
		return strings.ToLower(strings.TrimSpace(r.line)), nil
	}
}
