package cli

import (
	"strings"
	"testing"

	"hull/client"
)

func TestDiagnosisText(t *testing.T) {
	d := client.Diagnosis{Kernel: "6.1.0", Root: "/var/lib/hull", UID: 1000, Checks: []client.Check{
		{Group: "kernel", Name: "version", Level: "ok", Found: "Linux 6.1.0 on amd64"},
		{Group: "limits", Name: "cgroups", Level: "warn", Found: "not ours to write", Means: "Limits have no effect.", Do: "Ask systemd."},
	}}
	want := `kernel
  ok    version           Linux 6.1.0 on amd64
limits
  warn  cgroups           not ours to write
                          Limits have no effect.
                          → Ask systemd.

user 1000 on Linux 6.1.0, store /var/lib/hull: containers can run; 1 warning.
`
	if got := diagnosisText(d, 0); got != want {
		t.Errorf("want:\n%s\ngot:\n%s", want, got)
	}
	d.Checks[1].Level = "fail"
	if got := diagnosisText(d, 0); !strings.Contains(got, "cannot run as they should; 1 failure.") {
		t.Errorf("got:\n%s", got)
	}
	for line := range strings.SplitSeq(diagnosisText(d, 48), "\n") {
		if len([]rune(line)) > 48 && !strings.HasPrefix(line, "user") {
			t.Errorf("line longer than 48: %q", line)
		}
	}
}
