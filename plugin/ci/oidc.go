package ci

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxToken bounds the provider's answer.
const maxToken = 64 << 10

// tokenTime is how long the runner's token service may take.
const tokenTime = 30 * time.Second

// Token returns an OpenID Connect token of this run for an audience, "" if the pipeline has none to ask for. A fork's
// pipeline asks for none, whatever its environment has.
//
// GitHub gives one for each request; GitLab has made it before the job began, in the variable that .gitlab-ci.yml names.
func (r *Run) Token(ctx context.Context, env Env, audience, gitlabVariable string) (string, error) {
	if r.Fork {
		return "", nil
	}
	if r.System == GitLab {
		return env(gitlabVariable), nil
	}
	address, bearer := env("ACTIONS_ID_TOKEN_REQUEST_URL"), env("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	if address == "" || bearer == "" {
		return "", nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("ACTIONS_ID_TOKEN_REQUEST_URL: %w", err)
	}
	query := u.Query()
	query.Set("audience", audience)
	u.RawQuery = query.Encode()
	token, err := fetchToken(ctx, u.String(), bearer)
	if err != nil {
		return "", fmt.Errorf("ask GitHub for an OIDC token for %q: %w", audience, err)
	}
	return token, nil
}

func fetchToken(ctx context.Context, address, bearer string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Accept", "application/json; api-version=2.0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxToken))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the runner's token service answered %s; does the job have 'permissions: id-token: write'?", resp.Status)
	}
	var answer struct {
		Value string `json:"value"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Value == "" || strings.ContainsAny(answer.Value, "\r\n") {
		return "", fmt.Errorf("the runner's token service answered something that is no token")
	}
	return answer.Value, nil
}
