package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"lockstep/model"
)

// These are set by release builds, with -ldflags "-X main.version=…".
var version, revision = "", ""

// programVersion is the release's, or what the Go tool stamped, or 0.0.0-dev.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && len(info.Main.Version) > 1 && info.Main.Version[0] == 'v' {
		return info.Main.Version[1:]
	}
	return "0.0.0-dev"
}

// programRevision is the commit that the program was built from, "" if no one
// knows. Changes that were in no commit are named.
func programRevision() string {
	if revision != "" {
		return revision
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if settings["vcs.revision"] != "" && settings["vcs.modified"] == "true" {
		return settings["vcs.revision"] + " and changes"
	}
	return settings["vcs.revision"]
}

func versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the versions of the program and of what must agree in a fleet",
		Example: "  lockstep version --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			contract := model.DefaultSpec().Contract()
			v := struct {
				Version  string `json:"version"`
				Revision string `json:"revision,omitempty"`
				Encoding string `json:"encoding"`
				Contract string `json:"contract"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{programVersion(), programRevision(), model.Encoding, fmt.Sprintf("%x", contract), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
			}
			from := v.Revision
			if from == "" {
				from = "unknown"
			}
			fmt.Fprintf(
				cmd.OutOrStdout(),
				"lockstep %s (%s, %s)\nrevision        %s\nstate encoding  %s\ndefault spec    penguins, contract %.16s\n",
				v.Version, v.Go, v.Platform, from, v.Encoding, v.Contract,
			)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
