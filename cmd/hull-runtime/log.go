package main

import (
	"encoding/json"
	"strconv"
	"time"
)

// logLine is a line of the log as runc writes it; containerd and Docker parse the JSON one for the last error.
func logLine(format, level, msg string, at time.Time) string {
	stamp := at.Format(time.RFC3339)
	if format == "json" {
		b, err := json.Marshal(struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
			Time  string `json:"time"`
		}{level, msg, stamp})
		if err != nil {
			return err.Error() + "\n"
		}
		return string(b) + "\n"
	}
	return "time=" + strconv.Quote(stamp) + " level=" + level + " msg=" + strconv.Quote(msg) + "\n"
}
