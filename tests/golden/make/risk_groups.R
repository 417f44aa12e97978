# Golden values of risk groups. Run once: Rscript tests/golden/make/risk_groups.R tests/golden/risk_groups.json
# R 4.2.2, survival 3.5-3, maxstat 0.7-25, jsonlite. The data are R's own `lung` (many tied times) and drawn numbers.
suppressMessages({library(survival); library(maxstat); library(jsonlite)})
out <- commandArgs(trailingOnly = TRUE)[1]
d <- lung[complete.cases(lung[, c("time", "status", "age", "sex", "ph.ecog", "wt.loss")]), ]
d$event <- as.integer(d$status == 2)
d$risk <- d$age / 10 - d$sex + d$ph.ecog
d$two <- as.integer(d$risk > quantile(d$risk, 0.5))
d$three <- findInterval(d$risk, quantile(d$risk, c(1, 2) / 3), left.open = TRUE)
fit <- function(g) {
  s <- summary(coxph(Surv(time, event) ~ factor(d[[g]]), data = d, ties = "efron", control = coxph.control(eps = 1e-12, toler.chol = 1e-14)))
  unname(s$conf.int[, c(1, 3, 4), drop = FALSE])
}
rmst <- function(tau) {
  s <- summary(survfit(Surv(time, event) ~ two, data = d), rmean = tau)$table
  unname(s[, grep("rmean", colnames(s))])
}
half <- survfit(Surv(time, event) ~ two, data = d, conf.type = "log-log")
middle <- unname(summary(half)$table[, c("median", "0.95LCL", "0.95UCL")])
lr <- survdiff(Surv(time, event) ~ three, data = d)
# scores with ties: martingale residuals of the empty model
scores <- unname(residuals(coxph(Surv(time, event) ~ 1, data = d, ties = "breslow"), type = "martingale"))
# maximally selected: no ties in time, where all definitions of the scores agree; ties in the marker
set.seed(7)
n <- 120
marker <- round(rnorm(n), 1)
t <- rexp(n, exp(0.8 * (marker > 0.4))); u <- rexp(n, 0.5)
m <- data.frame(marker = marker, time = pmin(t, u), event = as.integer(t <= u))
run <- function(p, least, ...) maxstat.test(Surv(time, event) ~ marker, data = m, smethod = "LogRank", pmethod = p,
                                            minprop = least, maxprop = 1 - least, ...)
a <- run("Lau92", 0.1); b <- run("Lau92", 0.25)
mc <- run("condMC", 0.1, B = 99999)
weak <- data.frame(marker = m$marker, time = m$time[c(61:120, 1:60)], event = m$event[c(61:120, 1:60)])
w <- maxstat.test(Surv(time, event) ~ marker, data = weak, smethod = "LogRank", pmethod = "condMC", B = 99999)
write(toJSON(list(
  time = d$time, event = d$event, risk = d$risk, two = d$two, three = d$three,
  hr2 = fit("two"), hr3 = fit("three"), rmst500 = rmst(500), rmst1000 = rmst(1000), median = middle,
  chi3 = lr$chisq, p3 = pchisq(lr$chisq, 2, lower.tail = FALSE), scores = scores,
  maxstat = list(marker = m$marker, time = m$time, event = m$event,
    statistic = unname(a$statistic), cut = unname(a$estimate), p92 = a$p.value,
    statistic25 = unname(b$statistic), cut25 = unname(b$estimate), p92_25 = b$p.value,
    p_mc = mc$p.value, weak_statistic = unname(w$statistic), weak_p_mc = w$p.value)
), digits = NA, auto_unbox = TRUE), out)
