#!/bin/sh
# Deploys the commit that a pipeline has tested, shows the log, and fails if the deployment does. Sent again
# by a retried job, it follows the same deployment. Needs CUTOVER_URL, CUTOVER_TOKEN, APP, COMMIT and RUN, the
# pipeline's id.
set -eu
curl -fsS -X POST "$CUTOVER_URL/api/v1/apps/$APP/deployments?follow=true" \
  -H "Authorization: Bearer $CUTOVER_TOKEN" -H "Idempotency-Key: $RUN" \
  -d "{\"ref\": \"$COMMIT\"}" | tee deployment.log
[ "$(tail -n 1 deployment.log)" = live ]
