package main

// failed is an error as --json prints it.
type failed struct {
	Code        int    `json:"code"` // an answer's, or else the exit code
	Description string `json:"description"`
}

// failureOf is an error for --json, nil if there is none.
func failureOf(err error) *failed {
	if err == nil {
		return nil
	}
	return &failed{exitCode(err), err.Error()}
}
