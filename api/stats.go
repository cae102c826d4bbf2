package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"hull/engine"
	"hull/errdef"

	"github.com/moby/moby/api/types/container"
)

// statsPeriod is the time between two samples of a stream, which is also what a percentage is measured over.
const statsPeriod = time.Second

// containerStats is GET /containers/{name}/stats: a stream of samples, or one. Each carries the one before, so that
// clients can tell the use from the counters; with one-shot there is no waiting for one before.
func (s *server) containerStats(q *request) error {
	stream := q.query("stream") == "" || q.flag("stream")
	if stream && q.flag("one-shot") {
		return errdef.Invalid("cannot have stream=true and one-shot=true")
	}
	now, err := s.engine.Stats(q.Context(), q.name)
	if err != nil {
		return err
	}
	if q.flag("one-shot") || !stream && now.Read.IsZero() {
		return q.answer(http.StatusOK, wireStats(now, new(engine.Stats)))
	}
	before := new(engine.Stats)
	if !stream {
		if before = now; !wait(q.Context(), statsPeriod) {
			return errAnswered
		}
		if now, err = s.engine.Stats(q.Context(), q.name); err != nil {
			return err
		}
		return q.answer(http.StatusOK, wireStats(now, before))
	}
	q.w.Header().Set("Content-Type", "application/json")
	q.w.WriteHeader(http.StatusOK)
	out := json.NewEncoder(q.w)
	for {
		if out.Encode(wireStats(now, before)) != nil || http.NewResponseController(q.w).Flush() != nil {
			return errAnswered // the client has gone
		}
		if !wait(q.Context(), statsPeriod) {
			return errAnswered
		}
		before = now
		if now, err = s.engine.Stats(q.Context(), now.ID); err != nil {
			if !errors.Is(err, errdef.ErrNotFound) { // removed: the stream ends
				s.log.Error("read stats", "container", q.name, "error", err)
			}
			return errAnswered
		}
	}
}

// wait returns false when ctx ends before d has passed.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func wireStats(now, before *engine.Stats) *container.StatsResponse {
	out := &container.StatsResponse{ID: now.ID, Name: "/" + now.Name, OSType: "linux", Read: now.Read, PreRead: before.Read}
	if now.Read.IsZero() {
		return out
	}
	out.CPUStats, out.PreCPUStats = wireCPU(now), wireCPU(before)
	out.MemoryStats = container.MemoryStats{
		Usage: now.Memory, MaxUsage: now.MemoryPeak, Failcnt: now.MemoryFails, Limit: now.MemoryLimit, Stats: now.MemoryStat,
	}
	out.PidsStats = container.PidsStats{Current: now.Pids, Limit: now.PidsLimit}
	out.BlkioStats = container.BlkioStats{IoServiceBytesRecursive: wireIO(now.IOBytes), IoServicedRecursive: wireIO(now.IOs)}
	for name, n := range now.Networks {
		if out.Networks == nil {
			out.Networks = map[string]container.NetworkStats{}
		}
		out.Networks[name] = container.NetworkStats{
			RxBytes: n.RxBytes, RxPackets: n.RxPackets, RxErrors: n.RxErrors, RxDropped: n.RxDropped,
			TxBytes: n.TxBytes, TxPackets: n.TxPackets, TxErrors: n.TxErrors, TxDropped: n.TxDropped,
		}
	}
	return out
}

func wireCPU(s *engine.Stats) container.CPUStats {
	out := container.CPUStats{
		CPUUsage: container.CPUUsage{
			TotalUsage: uint64(s.CPU), UsageInUsermode: uint64(s.User), UsageInKernelmode: uint64(s.System),
		},
		SystemUsage: uint64(s.SystemCPU), OnlineCPUs: uint32(s.CPUs),
		ThrottlingData: container.ThrottlingData{
			Periods: s.Periods, ThrottledPeriods: s.ThrottledPeriods, ThrottledTime: uint64(s.Throttled),
		},
	}
	for _, d := range s.PerCPU {
		out.CPUUsage.PercpuUsage = append(out.CPUUsage.PercpuUsage, uint64(d))
	}
	return out
}

func wireIO(list []engine.IO) (out []container.BlkioStatEntry) {
	for _, io := range list {
		out = append(out, container.BlkioStatEntry{Major: io.Major, Minor: io.Minor, Op: io.Op, Value: io.Value})
	}
	return out
}
