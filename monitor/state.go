package monitor

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"hull/errdef"
	"hull/state"
	"hull/state/plainjson"

	"golang.org/x/sys/unix"
)

// maxState is the most a state file may have: warnings and an error text are all that grows in it.
const maxState = 1 << 20

// ReadState returns the state in the container's state directory; a container never started is StatusCreated.
func ReadState(stateDir string) (*State, error) {
	name := filepath.Join(stateDir, StateFile)
	b, err := state.Read(name, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return &State{Status: StatusCreated}, nil
	}
	if err != nil {
		return nil, err
	}
	st := new(State)
	if err := plainjson.Unmarshal(b, st); err != nil {
		return nil, errdef.As(errdef.ErrCorrupt, fmt.Errorf("read %s: %w", name, err))
	}
	return st, nil
}

// inUTC is st for others to read: with local times each start of a container would read the time zone.
func (st *State) inUTC() *State {
	utc := *st
	utc.StartedAt, utc.FinishedAt = st.StartedAt.UTC(), st.FinishedAt.UTC()
	return &utc
}

// WriteState replaces the state in stateDir: readers see the old or the new one, never half. What a power cut leaves of it
// is up to write, one of package state's. On a full disk an existing state is overwritten in its own block, which is not
// atomic but does not lose the exit code.
func WriteState(stateDir string, st *State, write func(path string, data []byte) error) error {
	b, err := plainjson.Marshal(st.inUTC())
	if err != nil {
		return err
	}
	name := filepath.Join(stateDir, StateFile)
	err = write(name, b)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return overwrite(name, b)
	}
	return err
}

func overwrite(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return errors.Join(f.Truncate(int64(len(b))), f.Sync())
}

// Running reports whether the init process that st describes lives: the same boot, the same process.
func (st *State) Running() bool {
	if st.Status != StatusRunning || st.Pid <= 0 {
		return false
	}
	boot, err := bootID()
	if err != nil || boot != st.BootID {
		return false
	}
	start, state, err := startTime(st.Pid)
	return err == nil && state != 'Z' && state != 'X' && start == st.PidStart
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(b)), err
}

// startTime is field 22 of /proc/PID/stat, in clock ticks since boot; state is field 3: Z and X have ended and only wait to
// be reaped, T and t are kept from running by a signal or a debugger. Field 2 is the command, in parentheses, and may hold any byte; the last ')' ends it.
func startTime(pid int) (start uint64, state byte, err error) {
	name := "/proc/" + strconv.Itoa(pid) + "/stat"
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, 0, err
	}
	const stateField, startField = 3, 22
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) <= startField-stateField {
		return 0, 0, fmt.Errorf("read %s: too few fields", name)
	}
	start, err = strconv.ParseUint(string(fields[startField-stateField]), 10, 64)
	return start, fields[0][0], err
}
