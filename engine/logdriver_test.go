package engine

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestJournalFields: the labels of an image can add fields to entries, but none that the journal or a person takes for
// somebody else's word.
func TestJournalFields(t *testing.T) {
	c := &Container{ID: strings.Repeat("ab", 32), Name: "web"}
	c.Config.Image = "img"
	own := journalFields(c, "tag", nil)
	forged := map[string]string{}
	for _, name := range []string{
		"message", "MESSAGE", "message.id", "priority", "_PID", "__CURSOR", "_hostname", "=x", "\n", "syslog.identifier", "syslog-facility",
		"code_file", "coredump.exe", "object-pid", "container_name", "CONTAINER_ID_FULL", "image.name", "unit", "",
	} {
		forged[name] = "forged\nMESSAGE=forged"
	}
	fields := journalFields(c, "tag", forged)
	for name, v := range own {
		if fields[name] != v {
			t.Errorf("%s is %q", name, fields[name])
		}
		delete(fields, name)
	}
	// What is left of the journal's own names means nothing to it.
	if got, want := slices.Sorted(maps.Keys(fields)), []string{"CURSOR", "HOSTNAME", "PID", "X"}; !slices.Equal(got, want) {
		t.Errorf("want the fields %q, got %q", want, got)
	}
	fields = journalFields(c, "tag", map[string]string{"org.example.team": "a", "tabs\tand=signs": "b", strings.Repeat("l", 200): "c"})
	for name, v := range map[string]string{"ORG_EXAMPLE_TEAM": "a", "TABS_AND_SIGNS": "b", strings.Repeat("L", maxField): "c"} {
		if fields[name] != v {
			t.Errorf("%s is %q, want %q", name, fields[name], v)
		}
	}
}
