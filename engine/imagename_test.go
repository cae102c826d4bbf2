package engine

import (
	"slices"
	"testing"

	"hull/image"
)

func TestLeaveNames(t *testing.T) {
	const digest = "@sha256:4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"
	for pattern, want := range map[string][]string{
		"app":           {"app:1", "app:2", "app" + digest},
		"app:1":         {"app:1", "app" + digest},
		"app" + digest:  {"app" + digest},
		"app:*":         {"app:1", "app:2", "app" + digest},
		"x/*":           {"x/y:1", "x/y" + digest},
		"pulled":        {"pulled" + digest}, // a digest without a tag is a name too
		"*":             {"app:1", "app:2", "app" + digest, "pulled" + digest},
		"app:3":         {},
		"x":             {},
		"[^a]pp" + ":1": {},
	} {
		i := image.Summary{
			RepoTags:    []string{"app:1", "app:2", "x/y:1"},
			RepoDigests: []string{"app" + digest, "pulled" + digest, "x/y" + digest},
		}
		any := leaveNames(&i, []string{pattern})
		if got := slices.Concat(i.RepoTags, i.RepoDigests); !slices.Equal(got, want) || any != (len(want) > 0) {
			t.Errorf("%s: want %v, got %v, %t", pattern, want, got, any)
		}
	}
}
