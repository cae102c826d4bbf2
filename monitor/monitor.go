// Package monitor is the small process beside each container: it holds the container's stdio, writes its log,
// waits for its end, keeps the exit status and forks its execs. The engine talks to it over a unix socket in the
// container's run directory; the same package holds both ends.
//
//	c, err := monitor.Open(ctx, binary, runDir)          // Dial, or Spawn when there is none
//	defer c.Close()
//	resp, err := c.Do(ctx, &monitor.Request{Op: monitor.OpStart})
//
// Beware: a POSIX record lock is lost when the process closes any descriptor of the locked file, so nothing that
// runs inside the monitor may call Alive or Claim on its own run directory.
package monitor
