package client

import (
	"context"
	"net/http"
)

// Diagnosis is what the machine and user of the engine can and cannot do.
type Diagnosis struct {
	Healthy bool // no check has the level "fail"
	Kernel  string
	Arch    string
	UID     int
	Root    string
	Run     string
	Checks  []Check
}

// Check is one thing the engine looked at. Level is "ok", "info", "warn" or "fail".
type Check struct {
	Group, Name, Level string
	Found, Means, Do   string // sentences; the last two may be empty
}

// Doctor asks the engine to examine its machine.
func (c *Client) Doctor(ctx context.Context) (Diagnosis, error) {
	var d Diagnosis
	err := c.hull(ctx, request{method: http.MethodGet, path: "/hull/v1/doctor"}, &d)
	return d, err
}
