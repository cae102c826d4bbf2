package seccomp

import (
	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxErrno is the largest error number a system call can return; the kernel clamps to it.
const maxErrno = 4095

// action returns what a filter returns for act. Without errnoRet, errno and trace carry EPERM.
func action(act specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errnoRet != nil {
		if act != specs.ActErrno && act != specs.ActTrace {
			return 0, errdef.Invalid("seccomp: errnoRet has no meaning for the action %q", act)
		}
		if *errnoRet > maxErrno {
			return 0, errdef.Invalid("seccomp: errnoRet %d is not an error number (0 to %d)", *errnoRet, maxErrno)
		}
		data = uint32(*errnoRet)
	}
	switch act {
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF, nil
	}
	return 0, errdef.Invalid("seccomp: unknown action %q", act)
}

// lets tells whether a call with that return value may be executed. A tracer is expected to know new calls itself.
func lets(value uint32) bool {
	switch value & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_TRACE:
		return true
	}
	return false
}

func kills(value uint32) bool {
	action := value & unix.SECCOMP_RET_ACTION_FULL
	return action == unix.SECCOMP_RET_KILL_THREAD || action == unix.SECCOMP_RET_KILL_PROCESS
}

// flagTSync is accepted although the runtime-spec no longer lists it: old profiles carry it.
const flagTSync specs.LinuxSeccompFlag = "SECCOMP_FILTER_FLAG_TSYNC"

func flags(list []specs.LinuxSeccompFlag, notify bool) (uint, error) {
	var set uint
	for _, f := range list {
		switch f {
		case flagTSync:
			set |= unix.SECCOMP_FILTER_FLAG_TSYNC
			if notify { // both return a number; linux 5.7 wants to be told that only the listener's is meant
				set |= unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
			}
		case specs.LinuxSeccompFlagLog:
			set |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			set |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			if notify { // without a listener the kernel answers EINVAL
				set |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
			}
		default:
			return 0, errdef.Invalid("seccomp: unknown flag %q", f)
		}
	}
	return set, nil
}
