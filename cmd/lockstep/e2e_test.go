//go:build e2e

package main

import "testing"

// TestEndToEnd drives the demo with the real nats CLI, which must be on the
// PATH: go install github.com/nats-io/natscli/nats@v0.5.1
func TestEndToEnd(t *testing.T) { scripts(t, "testdata/e2e") }
