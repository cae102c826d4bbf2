package rig

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"hull/trash"
)

// What a test has removed is in the trash, and not left behind. So the census is taken without it; but first with it: the
// trash holds whole things that somebody removed, nothing but files, and can be emptied.

// trashFaults is what is wrong with the trash, a line each.
func (h *Hull) trashFaults() []string {
	list, err := trash.Open(h.Root).List()
	if err != nil {
		return []string{"trash: " + err.Error()}
	}
	var out []string
	for _, i := range list {
		if why := trashFault(i); why != "" {
			out = append(out, fmt.Sprintf("trash: item %d, %s %s: %s", i.Number, i.Kind, i.Name, why))
		}
	}
	if len(list) == 0 {
		return out
	}
	base := kernelObjects(h.base)
	now := h.settle(func(_, now Census) bool { return slices.Equal(base, kernelObjects(now)) })
	return append(out, differences(base, kernelObjects(now))...)
}

// trashFault says why an item is not what a removal leaves, or "".
func trashFault(i *trash.Item) string {
	if i.Damaged != "" {
		return i.Damaged
	}
	switch i.Kind {
	case trash.Container:
		var c struct {
			ID   string `json:"id"`
			Host struct {
				AutoRemove bool `json:"autoRemove"`
			} `json:"host"`
		}
		data, err := os.ReadFile(i.Path(filepath.Join(i.ID, "config.json")))
		if err == nil {
			err = json.Unmarshal(data, &c)
		}
		switch {
		case err != nil:
			return err.Error()
		case c.ID != i.ID:
			return "the definition is of " + c.ID
		case c.Host.AutoRemove:
			return "it removes itself at its end, and that is for good"
		}
	case trash.Volume:
		if !exists(i.Path("volume/volume.json")) || !exists(i.Path("volume/_data")) {
			return "the volume is not whole"
		}
	case trash.Image:
		if len(i.Detail) == 0 {
			return "nothing says what it was"
		}
	}
	return ""
}

// emptyTrash removes for good what the test has removed. What is wrong with the trash is returned; what cannot be removed,
// the census shows.
func (h *Hull) emptyTrash() (faults []string) {
	if left, _ := filepath.Glob(filepath.Join(h.Root, "undo", "*")); len(left) == 0 {
		return nil
	}
	faults = h.trashFaults()
	line := slices.Concat(h.Through, []string{h.Program, "trash", "empty", "--force"})
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = slices.Clone(h.Env)
	if out, err := cmd.CombinedOutput(); err != nil {
		faults = append(faults, fmt.Sprintf("trash: it cannot be emptied: %v: %s", err, out))
	}
	return faults
}

// kernelObjects are the lines of c that are not about files.
func kernelObjects(c Census) Census {
	return slices.DeleteFunc(slices.Clone(c), func(line string) bool { return strings.HasPrefix(line, "file ") })
}
