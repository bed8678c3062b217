package image_test

import (
	"strings"
	"testing"

	"banger/internal/fault"
	"banger/internal/image"
)

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"debian:12": true, "a": true, "my-root_1.2": true, "a:b": true, strings.Repeat("a", 64): true,
		"": false, ":": false, "debian:": false, ":12": false, "a:b:c": false, "Debian": false, "-a": false, "a-": false, "../a": false,
		"a/b": false, "a b": false, "a\n": false, "debian:12@083ddf11755a": false, strings.Repeat("a", 65): false,
	} {
		err := image.CheckName(name)
		if (err == nil) != ok {
			t.Errorf("%q: got %v", name, err)
		}
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: got %s", name, fault.CodeOf(err))
		}
	}
}

func TestSelect(t *testing.T) {
	all := []image.Manifest{
		{ID: "aaaa00000001", Name: "debian:12"},
		{ID: "aaaa00000002", Name: "debian:13"},
		{ID: "bbbb00000003", Name: "aaaa00000001x"},
		{ID: "cccc00000004", Name: "debian:12@cccc00000004"},
	}
	for selector, want := range map[string]string{
		"debian:12": "aaaa00000001", "aaaa00000002": "aaaa00000002", "b": "bbbb00000003", "aaaa00000001": "aaaa00000001",
		"aaaa00000001x": "bbbb00000003", "debian:12@cccc00000004": "cccc00000004",
	} {
		if got, err := image.Select(all, selector); err != nil || got.ID != want {
			t.Errorf("%s: got %s, %v", selector, got.ID, err)
		}
	}
	for selector, want := range map[string]string{
		"aaaa": `find image "aaaa": it matches 2 images: debian:12 (aaaa00000001), debian:13 (aaaa00000002)`,
		"":     `find image: no image has this name or id`,
		"none": `find image "none": no image has this name or id`,
	} {
		if _, err := image.Select(all, selector); err == nil || err.Error() != want {
			t.Errorf("%q: got %v", selector, err)
		}
	}
}
