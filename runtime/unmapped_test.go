package runtime

import (
	"slices"
	"testing"
)

// TestUnmapped: a bind of a whole host is one warning, however many of its mounts cannot be mapped.
func TestUnmapped(t *testing.T) {
	for _, tt := range []struct {
		names unmapped
		want  []string
	}{
		{nil, nil},
		{unmapped{"/a"}, []string{"/a is on a file system that cannot map ids: its files appear as nobody's in the container"}},
		{unmapped{"/a", "/b"}, []string{"/a, /b are on file systems that cannot map ids: their files appear as nobody's in the container"}},
		{unmapped{"/a", "/b", "/c", "/d", "/e"}, []string{"/a, /b, /c and 2 other mounts are on file systems that cannot map ids: their files appear as nobody's in the container"}},
	} {
		b := new(boot)
		if b.warnUnmapped(tt.names); !slices.Equal(b.warnings, tt.want) {
			t.Errorf("%q: want %q, got %q", tt.names, tt.want, b.warnings)
		}
	}
}
