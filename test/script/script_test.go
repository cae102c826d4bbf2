package script

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"hull/registry/registrytest"
	"hull/test/rig"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestHull(t *testing.T) { run(t, "hull") }
func TestHulld(t *testing.T) {
	if rig.Guest() {
		t.Skip("the guest is slow, and about the kernel")
	}
	run(t, "hulld")
}

// session is what the commands of one script share.
type session struct {
	t    testing.TB // of the script
	h    *rig.Hull
	code int // exit status of the last hull
}

func run(t *testing.T, program string) {
	rig.Root(t)
	busybox, layered := rig.Busybox(t), rig.Layered(t).OCI(t)
	files, err := filepath.Glob("*.txtar")
	if rig.Guest() { // what depends on the kernel
		files, err = []string{"run.txtar", "options.txtar", "namespaces.txtar", "life.txtar", "image.txtar"}, nil
	}
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Files:               files,
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(rig.Patience(8 * time.Minute)),
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "guest":
				return rig.Guest(), nil
			}
			return false, os.ErrInvalid
		},
		Setup: func(env *testscript.Env) error {
			t := env.T().(testing.TB) // the script's own: its cleanups run when the script ends
			h := rig.Engine(t)
			h.Program = rig.Bin(t, program)
			h.Load(t, busybox)
			h.Load(t, layered)
			env.Vars = append(env.Vars, h.Env...)
			env.Vars = append(env.Vars, "HULL="+h.Program, "DIR="+h.Dir, "REGISTRY="+registrytest.New(t, registrytest.Options{}).Addr,
				"PRIVATE="+registrytest.New(t, registrytest.Options{User: "me", Password: "secret", Bearer: true}).Addr)
			env.Values["session"] = &session{t: t, h: h}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"hull": func(ts *testscript.TestScript, neg bool, args []string) {
				if code := of(ts).hull(ts, args); (code != 0) != neg {
					ts.Fatalf("unexpected exit status %d", code)
				}
			},
			"exit": func(ts *testscript.TestScript, neg bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				if got := of(ts).code; (got == want) == neg {
					ts.Fatalf("want exit status %d, got %d", want, got)
				}
			},
			"eventually": func(ts *testscript.TestScript, neg bool, args []string) {
				if len(args) < 2 || args[0] != "hull" {
					ts.Fatalf("usage: [!] eventually hull ARG...")
				}
				for end := time.Now().Add(rig.Patience(10 * time.Second)); (of(ts).hull(ts, args[1:]) != 0) != neg; time.Sleep(20 * time.Millisecond) {
					if time.Now().After(end) {
						ts.Fatalf("still exit status %d", of(ts).code)
					}
				}
			},
			"census": func(ts *testscript.TestScript, neg bool, args []string) {
				of(ts).h.Check(of(ts).t)
			},
		},
	})
}

func of(ts *testscript.TestScript) *session { return ts.Value("session").(*session) }

// hull runs the program under test; its output is what stdout and stderr look at next.
func (s *session) hull(ts *testscript.TestScript, args []string) int {
	s.code = 0
	err := ts.Exec(s.h.Program, args...)
	var status *exec.ExitError
	switch {
	case errors.As(err, &status):
		s.code = status.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	return s.code
}
