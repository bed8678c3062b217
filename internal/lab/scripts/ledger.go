package scripts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Ledger is a folder in which hosts that share the scripts of a suite write down who runs which: a file for each script,
// with the name of the host that took it, and how it ended.
type Ledger string

// Verdicts.
const (
	hasPassed = "passed"
	hasFailed = "failed"
)

func (l Ledger) file(script string) string {
	return filepath.Join(string(l), strings.ReplaceAll(script, "/", ":"))
}

// taken reports whether any host has taken a script.
func (l Ledger) taken(script string) (bool, error) {
	_, err := os.Stat(l.file(script))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// take reports whether a script was left for this host.
func (l Ledger) take(script, host string) (bool, error) {
	f, err := os.OpenFile(l.file(script), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = fmt.Fprintln(f, host)
	return true, errors.Join(err, f.Close())
}

// end writes down how a script that was taken ended.
func (l Ledger) end(script, verdict string) error {
	f, err := os.OpenFile(l.file(script), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, verdict)
	return errors.Join(err, f.Close())
}

// Release gives back what a host had taken that did not come to its end.
func (l Ledger) Release(host string) error {
	return l.each(func(file string, entry []string) error {
		if len(entry) == 1 && entry[0] == host {
			return os.Remove(file)
		}
		return nil
	})
}

// Result counts the scripts that have come to their end.
func (l Ledger) Result() (r Result, err error) {
	err = l.each(func(_ string, entry []string) error {
		switch entry[len(entry)-1] {
		case hasPassed:
			r.Passed++
		case hasFailed:
			r.Failed++
		}
		return nil
	})
	return r, err
}

func (l Ledger) each(do func(file string, entry []string) error) error {
	files, err := filepath.Glob(filepath.Join(string(l), "*:*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if entry := strings.Fields(string(text)); len(entry) > 0 {
			if err := do(file, entry); err != nil {
				return err
			}
		}
	}
	return nil
}
