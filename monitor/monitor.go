// Package monitor is the small process beside each container: it holds stdio, logs, the wait and the names.
package monitor
