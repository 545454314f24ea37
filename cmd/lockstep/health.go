package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lockstep/cmd/lockstep/internal/printable"
)

func healthCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "health [URL]",
		Short: "Ask a worker's HTTP door whether it is ready, for health checks",
		Long: `Health asks a worker's HTTP door. The exit code is 0 if it is ready, 1 if it says
that it is not, and why, and 3 if nobody answers. A container without a shell
uses it as its health check.`,
		Example: `  lockstep health
  lockstep health http://127.0.0.1:8080/healthz   # alive, ready or not`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			url := "http://127.0.0.1:8080/readyz"
			if len(args) == 1 {
				url = args[0]
			}
			request, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, url, nil)
			if err != nil || request.URL.Host == "" {
				return usage("%q is no URL, as in http://127.0.0.1:8080/readyz", url)
			}
			answer, err := (&http.Client{Timeout: timeout}).Do(request)
			if err != nil {
				return &exitError{exitUnreachable, err}
			}
			defer answer.Body.Close()
			body, err := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
			if err != nil {
				return &exitError{exitUnreachable, err}
			}
			text := strings.TrimSpace(string(body))
			if answer.StatusCode != http.StatusOK {
				return fmt.Errorf("%s says %s: %s", url, answer.Status, printable.Text(text))
			}
			fmt.Fprintln(cmd.OutOrStdout(), printable.Text(text))
			return nil
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 3*time.Second, "how long to wait for the answer")
	return cmd
}
