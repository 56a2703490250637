<?php
echo "the admin's page";
