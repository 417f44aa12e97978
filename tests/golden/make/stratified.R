# Log-rank statistics within strata: Rscript stratified.R > ../stratified.json
# R 4.2.2, survival 3.5-3, jsonlite. The data are R's own `lung` (many tied times), by site where it is known.
suppressMessages({library(survival); library(jsonlite)})
d <- lung[!is.na(lung$inst) & !is.na(lung$ph.ecog), ]
d$three <- cut(d$age, c(0, 58, 67, 100), labels = FALSE)
two <- survdiff(Surv(time, status == 2) ~ sex + strata(inst), data = d)
three <- survdiff(Surv(time, status == 2) ~ three + strata(ph.ecog), data = d)
cat(toJSON(list(time = d$time, event = as.integer(d$status == 2), sex = d$sex, inst = d$inst, three = d$three,
                ecog = d$ph.ecog, chi_sex_inst = two$chisq, chi_three_ecog = three$chisq), digits = 15, auto_unbox = TRUE))
